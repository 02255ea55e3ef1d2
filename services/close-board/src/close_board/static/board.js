"use strict";
// What changes on a page comes over server-sent events, as HTML that the server has escaped. Ages are counted here.

function age(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

let ahead = 0; // Milliseconds that the server's clock is ahead of this one.

function tick() {
  const now = Date.now() + ahead;
  for (const one of document.querySelectorAll("time[data-age], time[data-due]")) {
    const seconds = (now - Date.parse(one.dateTime)) / 1000;
    const text = !one.hasAttribute("data-due") ? age(seconds) : seconds < 0 ? `in ${age(-seconds)}` : "due now";
    if (one.textContent !== text) one.textContent = text;
    if (!one.title) one.title = one.dateTime;
  }
}

function keepFocus(change) {
  const id = document.activeElement && document.activeElement.id;
  change();
  if (id && document.activeElement.id !== id) document.getElementById(id)?.focus({ preventScroll: true });
}

function parsed(html, tag) {
  const holder = document.createElement(tag);
  holder.innerHTML = html;
  return holder;
}

function setPart({ part, html }) {
  const place = document.getElementById(part);
  if (place) keepFocus(() => { place.innerHTML = html; });
}

function setRows({ part, order, rows }) {
  const body = document.getElementById(part);
  if (!body) return;
  keepFocus(() => {
    const known = new Map([...body.children].map((one) => [one.id, one]));
    for (const [id, html] of Object.entries(rows)) {
      const row = parsed(html, "tbody").firstElementChild;
      known.get(id)?.replaceWith(row);
      known.set(id, row);
    }
    const wanted = new Set(order);
    for (const one of [...body.children]) if (!wanted.has(one.id)) one.remove();
    order.forEach((id, at) => {
      const row = known.get(id);
      if (row && body.children[at] !== row) body.insertBefore(row, body.children[at] || null);
    });
  });
}

let heard = Date.now();

function follow(address) {
  const events = new EventSource(address);
  events.addEventListener("change", (event) => {
    heard = Date.now();
    const { at, title, parts, rows } = JSON.parse(event.data);
    ahead = Date.parse(at) - Date.now();
    for (const one of parts) setPart(one);
    for (const one of rows) setRows(one);
    if (title) document.title = title;
    document.documentElement.classList.remove("cut-off");
    tick();
  });
  events.addEventListener("over", () => { events.close(); location.assign("/login"); });
  events.addEventListener("error", () => {
    // The browser connects again by itself, unless it was answered with an error.
    if (events.readyState === EventSource.CLOSED) setTimeout(() => follow(address), 3000);
  });
}

function notice() {
  if (Date.now() - heard < 10000) return;
  document.documentElement.classList.add("cut-off");
  document.getElementById("as-of-said")?.classList.add("old");
}

function logInByAddress(form) {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  history.replaceState(null, "", location.pathname);
  form.elements.token.value = given;
  form.requestSubmit();
}

const live = document.getElementById("live");
if (live) {
  follow(live.dataset.events);
  setInterval(notice, 1000);
}
const login = document.getElementById("login");
if (login) logInByAddress(login);
tick();
setInterval(tick, 1000);

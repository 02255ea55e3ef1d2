"""The same steps as a Temporal workflow per close with local activities, on Temporal's development server."""

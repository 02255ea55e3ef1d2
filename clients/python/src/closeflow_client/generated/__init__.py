"""Made from close.proto by `make proto`; never edited by hand."""

"""The Hugging Face Hub: its addresses, listings, files, headers, and its cache on this computer."""

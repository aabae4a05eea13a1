"""Where models come from: names, the catalog, the Hugging Face Hub, the local store."""

"""Networks on the Hugging Face hub, with a card that says where they come from."""

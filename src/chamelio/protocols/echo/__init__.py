"""The smallest protocol that answers: UDP packets go back where they came from."""

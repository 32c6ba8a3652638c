"""The words that every room uses: data only, no behaviour that touches the machine."""

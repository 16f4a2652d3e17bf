"""The blocks families are built from. Each holds weights and a plain autograd `forward`; blocks
that also serve have a second method over flat rows that calls the kernel tier."""

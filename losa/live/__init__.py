"""What needs both stages: the live backbone beside a trained side network."""

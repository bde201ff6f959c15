"""The cost of answers: prices, the budget, and stored answers, so that no question is paid for twice."""

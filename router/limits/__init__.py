"""What a key may spend and send: budgets in dollars, requests and tokens a minute."""

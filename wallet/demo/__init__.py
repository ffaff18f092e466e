"""`seawall demo`: two identical accounts and one crash, on real protocols, with every service a real process."""

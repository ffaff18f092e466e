"""`python -m paymaster`."""

from paymaster.main import main

raise SystemExit(main())

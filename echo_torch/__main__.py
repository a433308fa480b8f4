"""`python -m echo_torch COMMAND`."""

from echo_torch.cli import main

raise SystemExit(main())

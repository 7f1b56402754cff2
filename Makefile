# Every command of the project. `make test` is the gate.
.PHONY: test
test:
	cargo test --release

module github.com/autonomy-gate/autonomy-gate/bindings/go

go 1.23.0

// The newest that Go 1.23 compiles: 1.11 wants 1.24, 1.12 wants 1.25.
require github.com/tetratelabs/wazero v1.10.1

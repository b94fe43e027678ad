module github.com/autonomy-gate/autonomy-gate/bindings/go

go 1.23.0

require github.com/tetratelabs/wazero v1.10.1

module github.com/autonomy-gate/autonomy-gate/bindings/go/test

go 1.23.0

require (
	github.com/autonomy-gate/autonomy-gate/bindings/go v0.0.0
	golang.org/x/mod v0.24.0
)

require github.com/tetratelabs/wazero v1.10.1 // indirect

// `cargo xtask test go` puts what is in the module's zip in its place.
replace github.com/autonomy-gate/autonomy-gate/bindings/go => ../

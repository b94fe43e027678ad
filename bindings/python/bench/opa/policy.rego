# `opa build --target wasm --entrypoint gate/allow policy.rego` of OPA 1.10.1 wrote policy.wasm, which lies beside
# it so that a benchmark needs no compiler of OPA.
package gate

import rego.v1

default allow := false

coherent := {"<none>", "pending", "acknowledged", "active"}

allow if {
	input.enrollment.node_id == input.node_id
	input.enrollment.status == "active"
	input.enrollment.enrollment_ref == input.bundle.enrollment_ref
	input.enrollment.rollout_state in coherent
}

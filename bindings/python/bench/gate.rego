# The question that the gate's verdict answers, for Open Policy Agent.
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

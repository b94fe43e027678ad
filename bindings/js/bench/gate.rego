# The question that the gate's verdict answers, for Open Policy Agent.
package gate

default allow := false

allow if {
	data.enrollment.node_id == input.node_id
	data.enrollment.status == "active"
	data.enrollment.enrollment_ref == data.bundle.enrollment_ref
	data.enrollment.rollout_state in {"<none>", "pending", "acknowledged", "active"}
}

-- Which rollouts a node has been brought to, to know the last one.
CREATE INDEX directive_active ON autonomy.directive (node_id) WHERE state = 'active';

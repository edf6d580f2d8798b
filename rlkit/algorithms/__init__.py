"""What agents share: state to bytes, loops of learning, replay, networks, evaluation."""

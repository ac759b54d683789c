"""What sends the requests and takes their answers: a fast streaming client, its users' words, its own honesty."""

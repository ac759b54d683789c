"""What is sent when: lengths and arrivals drawn as scenarios and traces say."""

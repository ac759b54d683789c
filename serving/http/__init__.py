"""HTTP/1.1 listeners inside somebody else's event loop: the public door and the private one."""

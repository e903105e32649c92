"""What artifacts cost on a phone, measured through adb by the tools of its runtimes."""

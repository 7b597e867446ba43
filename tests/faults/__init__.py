"""What becomes of a store when processes are killed, disks fail and the power goes out."""

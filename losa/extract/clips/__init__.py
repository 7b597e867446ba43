"""Clips of video: from a file to the frames that were asked for, and no others."""

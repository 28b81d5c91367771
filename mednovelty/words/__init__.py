"""Reports as bags of words: which report is unlike those of healthy people, and by which words."""

"""Downloads data sets: interrupted downloads resume, files are verified by their hash, archives are unpacked safely."""

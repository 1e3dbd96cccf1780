"""What mininetes itself costs, each figure beside what it is compared with, measured in one run (`make bench`)."""

"""What tests of whole commands share: processes, a provider in a process of its own, job folders, and its books."""

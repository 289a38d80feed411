"""The methods that a shop's engineer could have had instead, each fitted on training users.

A module a method; `table` lists them with the settings that are searched. A user with an empty
support gets log-popularity from all of them, since none has anything else to go by.
"""

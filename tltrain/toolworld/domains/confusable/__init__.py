"""Domains with confusable tools: several names share a beginning, and styles of naming are mixed within a domain.

Each domain looks up and changes records by different keys, so that a name must be read to its end to know which tool is
right. All of their tools are offered with others of their domain.
"""

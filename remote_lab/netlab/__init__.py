"""Labs on this host: boots uploaded netlab topologies, finds them again, ends them.

`runner.Runner` is the way in. This room knows no database, no HTTP and no sessions. Everything but `netns/` runs on the
host; `netns/` is what runs inside a pod.
"""

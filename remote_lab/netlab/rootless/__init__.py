"""What an ordinary user has instead of root: a range of subordinate ids, a keeper per pod, and a way to its devices.

Two kinds of modules. `subids`, `commands` and `user_pods` are the server's; `launch`, `user_namespace`, `keeper`,
`nameplate` and `forwarding` run in processes of their own that begin without the server's environment: standard
library and `netlab/netns/` only.
"""

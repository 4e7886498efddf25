import runpy

runpy.run_path("attack.py")

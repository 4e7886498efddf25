def post_output(topology):
    import runpy

    runpy.run_path("attack.py")

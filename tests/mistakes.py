"""Mistakes in sweep files, as a person could make them: what the answer must name, and the fields with the mistake.

A # stands for a prime that is drawn anew each time, LR for a domain. Fields that are not named are those of a sweep
over DIGITS.
"""

MISTAKES = """
grid     | grid=[]
grid[0]  | grid=[{}]
grid[1]  | grid=[{'epochs': [#]}, {}]
epochs   | grid={'epochs': []}
lamb     | grid={'epochs': [#], 'method.lamb': ()}
lamb     | grid={'method.lamb': 0.#}
lamb     | grid={'method.lamb': [[0.#]]}
grid     | grid=({'method.lamb'}, [0.#])
seeds    | seeds=()
seeds    | seeds=range(0)
seeds    | seeds=(#)
seeds    | seeds={#, 0}
seed     | seeds=(-#,)
seed     | seeds=(2**31 + #,)
seeds    | seeds=(10**400, #)
seed     | grid={'seed': [#, 0]}
seeds    | seeds=(#, 0, #)
objective| objective={}
objective| objective=''
choices  | space={'optim.lr': CategoricalDistribution([])}, trials=#
epochs   | grid={'epochs': [#, 4, #]}
lr       | grid={'optim.lr': [#e-4, 1, 1.0]}
grid[1]  | grid=[{'epochs': [#, 4]}, {'epochs': [#]}]
grid[2]  | grid=[{'epochs': [#]}, {'epochs': [4], 'optim.lr': [.#]}, {'optim.lr': [.#], 'epochs': [4]}]
grid[1]  | grid=[{'epochs': [#]}, {'epochs': [#], 'optim.lr': [DIGITS.optim.lr]}]
epochs   | grid={'epochs': [#]}, references=({'epochs': #},)
epochs   | references=({'epochs': #}, {'epochs': 4}, {'epochs': #})
epochs   | references=({'epochs': #}, {'epochs': #, 'seed': 0})
references| references=({'epochs': #})
references| references=['epochs', #]
protocols| grid={'probe.protocols': ['linear', 'knn'], 'epochs': [#]}
channels_last| grid={'model.channels_last': [True, False], 'epochs': [#]}
epochs   | space={'epochs': CategoricalDistribution([#, 4, #])}, trials=#
epochs   | space={'epochs': CategoricalDistribution([None, #])}, trials=#
epochs   | space={'epochs': CategoricalDistribution([[#], [4]])}, trials=#
compile  | space={'model.compile': CategoricalDistribution([True, False])}, trials=#
path     | space={'data.path': CategoricalDistribution(['a', 'b'])}, trials=#
epochs   | space={'epochs': lambda trial: #}, trials=#
epochs   | space={'epochs': [#, 4]}, trials=#
optim.lr | space={'optim.lr': LR}, trials=#, grid={'optim.lr': [1e-3]}
optim.lr | space={'optim.lr': LR}, trials=#, grid=[{'epochs': [#]}, {'optim.lr': [#e-3]}]
trials   | space={'optim.lr': LR}
trials   | space={'optim.lr': LR}, trials=0
trials   | space={'optim.lr': LR}, trials=-#
trials   | trials=#
trials   | trials=-#
trials   | space={'optim.lr': LR}, trials=#.0
warm_start| space={'optim.lr': LR}, trials=#, warm_start=('study',)
warm_start| space={'optim.lr': LR}, trials=#, warm_start=('a', 'a')
warm_start| space={'optim.lr': LR}, trials=#, warm_start=('demo')
warm_start| grid={'epochs': [#]}, warm_start=('demo',)
seeds    | space={'optim.lr': LR}, trials=#, objective={'val/probe_top1': 'max', 'val/l1_sparsity': 'min'}, seeds=(0, #)
early_stopping| objective={'val/probe_top1': 'max', 'val/l1_sparsity': 'min'}, early_stopping=Asha(first=#)
early_stopping| objective='val/knn_top1', early_stopping=Asha(first=#)
early_stopping| objective={'val/linear_top1': 'max'}, early_stopping=Asha(first=2, eta=#)
first    | early_stopping=Asha(first=0, eta=#)
first    | early_stopping=Asha(first=-#)
eta      | early_stopping=Asha(first=#, eta=1)
eta      | early_stopping=Asha(first=2, eta=-#)
eta      | early_stopping=Asha(first=2, eta=#.0)
Asha     | early_stopping=Asha(#)
objective| objective=LabelFree(), grid={'method': ['lejepa', 'rectified_lpjepa'], 'epochs': [#]}
objective| objective=LabelFree(), grid={'method.lamb': [0.0, 0.#]}
alpha    | objective=LabelFree(alpha='0.#')
workers  | workers=0, seeds=(#,)
workers  | workers=-#
workers  | workers=10**#
workers  | workers=2**10 * #
workers  | workers=#
global_batch| workers=2, grid={'global_batch': [64, #]}
cpus_per_worker| cpus_per_worker=0, seeds=(#,)
cpus_per_worker| cpus_per_worker=-#
cpus_per_worker| cpus_per_worker=10**6 * #
cpus_per_worker| cpus_per_worker=10**30 * #
cpus_per_worker| cpus_per_worker=0.#
gpus_per_worker| gpus_per_worker=-#
gpus_per_worker| gpus_per_worker=-0.#
gpus_per_worker| gpus_per_worker=1.#
gpus_per_worker| gpus_per_worker=10**6 * #
gpus_per_worker| gpus_per_worker=#e9
gpus_per_worker| gpus_per_worker=10**30 * #
gpus_per_worker| gpus_per_worker=0.#, workers=2
gpus_per_worker| gpus_per_worker='measured', workers=2, seeds=(#,)
gpus_per_worker| gpus_per_worker=float('nan'), seeds=(#,)
FloatDistribution| space={'optim.lr': FloatDistribution(.#, .01)}, trials=#
low      | space={'optim.lr': FloatDistribution(0.0, .#, log=True)}, trials=#
low      | space={'optim.lr': FloatDistribution(-.#, .1, log=True)}, trials=#
low      | space={'epochs': IntDistribution(0, #, log=True)}, trials=#
low      | space={'epochs': IntDistribution(99, #)}, trials=#
step     | space={'optim.lr': FloatDistribution(.1, .#, log=True, step=.1)}, trials=4
step     | space={'optim.lr': FloatDistribution(.1, 1.0, step=0.0)}, trials=#
step     | space={'optim.lr': FloatDistribution(.1, 1.0, step=-.#)}, trials=4
step     | space={'views.flip': FloatDistribution(0.0, 0.97, step=.#)}, trials=4
step     | space={'views.flip': FloatDistribution(0.0, 1.0, step=float('nan'))}, trials=#
step     | space={'epochs': IntDistribution(1, 24, step=#)}, trials=4
step     | space={'epochs': IntDistribution(1, 9, step=0)}, trials=#
lr       | space={'optim.lr': FloatDistribution(float('nan'), 1.0)}, trials=#
lr       | space={'optim.lr': FloatDistribution(1e-4, float('inf'))}, trials=#
lr       | space={'optim.lr': FloatDistribution(0.0, .#)}, trials=#
lr       | space={'optim.lr': FloatDistribution(-.#, .1)}, trials=#
flip     | space={'views.flip': FloatDistribution(0.5, #.0)}, trials=#
flip     | space={'views.flip': IntDistribution(0, #)}, trials=#
epochs   | space={'epochs': IntDistribution(-#, 9)}, trials=#
epochs   | space={'epochs': FloatDistribution(1, #)}, trials=#
epochs   | space={'epochs': IntDistribution(1, 10**400)}, trials=#
IntDistribution| space={'epochs': IntDistribution(1, float('inf'))}, trials=#
IntDistribution| space={'epochs': IntDistribution(float('nan'), #)}, trials=4
IntDistribution| space={'epochs': IntDistribution('a', #)}, trials=4
FloatDistribution| space={'optim.lr': FloatDistribution(None, #)}, trials=4
FloatDistribution| space={'optim.lr': FloatDistribution('a', 'b')}, trials=#
FloatDistribution| space={'optim.lr': FloatDistribution([.1], [.#])}, trials=4
FloatDistribution| space={'optim.lr': FloatDistribution(1e-4, 10**400)}, trials=#
FloatDistribution| space={'optim.lr': FloatDistribution(.#)}, trials=4
FloatDistribution| space={'optim.lr': FloatDistribution()}, trials=#
FloatDistribution| space={'optim.lr': FloatDistribution((.1, .#))}, trials=4
IntDistribution| space={'epochs': IntDistribution(1, 9, 2, 3, #)}, trials=4
name     | name='My sweep', seeds=(#,)
name     | name='../x#'
name     | name='a/b#'
name     | name='x.y#'
name     | name='#x'
name     | name='_x#'
name     | name='é#'
name     | name='study\\n', seeds=(#,)
name     | name='study.py', seeds=(#,)
name     | name='STUDY', seeds=(#,)
name     | name='', seeds=(#,)
name     | name='study#'
name     | name=__file__, seeds=(#,)
purpose  | purpose=None, seeds=(#,)
purpose  | purpose=print, seeds=(#,)
purpose  | purpose=['A study.', #]
base     | base=dict(epochs=#)
base     | base=(DIGITS, #)
base     | base=BestOf('other#')
base     | base=BestOf('../other#')
base     | base=BestOf('other'), grid={'epochs': [#]}
sweep    | base=BestOf(#)
path     | base=dataclasses.replace(DIGITS, data=DataConfig(name='image_folder', image_size=4#))
path     | base=dataclasses.replace(DIGITS, data=DataConfig(name='image_folder', path='/nowhere/#'))
path     | base=dataclasses.replace(DIGITS, data=DataConfig(name='image_folder', path=__file__, image_size=4#))
path     | base=dataclasses.replace(DIGITS, data=DataConfig(name='image_folder', path='~nobody/#'))
path     | base=dataclasses.replace(DIGITS, data=DataConfig(name='image_folder', path='a#\\0'))
path     | base=dataclasses.replace(DIGITS, data=DataConfig(name='image_folder', path='empty', image_size=4#))
fingerprint| base=dataclasses.replace(DIGITS, data=DataConfig(name='image_folder', path='images', fingerprint='#'))
path     | grid={'data.name': ['digits', 'image_folder'], 'epochs': [#]}
path     | grid={'data.path': ['/nowhere/#', 'images'], 'data.name': ['image_folder']}
encoder  | grid={'model.encoder': ['test_resnet', 'resnet#']}
encoder  | references=({'model.encoder': 'no/such#'},)
encoder  | space={'model.encoder': CategoricalDistribution(['test_resnet', 'vgg#x'])}, trials=4
swa_decay| grid={'method': ['lejepa', 'rectified_lpjepa'], 'model.swa_decay': [0.#]}
num_global| references=({'method': 'rectified_lpjepa', 'views.num_global': #},)
p        | grid={'method.p': [0.#]}
missing  | base=Sweep(name='inner', seeds=(#,))
"""

NUMBERS = {  # what a config refuses, by key
    "method.lamb": ["-0.1", "1.5", "2"],
    "method.num_slices": ["0", "-3"],
    "optim.lr": ["0.0", "-1e-3", "0"],
    "optim.weight_decay": ["-1e-3"],
    "optim.momentum": ["1.0", "-0.5"],
    "epochs": ["-1", "-100"],
    "global_batch": ["1", "0", "-64"],
    "views.num_local": ["-1"],
    "views.global_size": ["0", "3"],
    "views.flip": ["1.5", "-0.1"],
    "views.hue": ["0.7"],
    "model.projector_dim": ["0"],
    "model.drop_path": ["1.0", "-0.2"],
    "data.image_size": ["2", "-16"],
    "data.val_frac": ["0.0", "1.0"],
    "seed": ["-1", "2**31"],
}
NEVER = ["float('nan')", "float('inf')", "-float('inf')", "10**400", "-(10**5000)", "2**63"]  # by any key

VALUES = [  # an expression, and what it is: wrong wherever that is not taken
    *[("None", "none"), ("'seven'", "text"), ("7", "int"), ("0.5", "float"), ("True", "bool"), ("b'ab'", "bytes")],
    *[("[[1, 2]]", "nested"), ("{0.5, 0.25}", "set"), ("{'a': {'b': 1}}", "nested"), ("((),)", "nested")],
    *[("np.float32(0.5)", "scalar"), ("np.float64(0.5)", "scalar"), ("np.int64(2)", "scalar")],
    *[("np.bool_(True)", "scalar"), ("np.str_('a')", "scalar"), ("torch.tensor(0.5)", "scalar"), ("1j", "odd")],
    *[("np.array([1.0, 2.0])", "array"), ("np.eye(9)", "array"), ("torch.ones(3, 30)", "array"), ("...", "odd")],
    *[("lambda: 1", "odd"), ("open(os.devnull)", "odd"), ("(i for i in (1, 2))", "odd"), ("object()", "odd")],
    *[("threading.Lock()", "odd"), ("print", "odd"), ("TrainConfig", "class"), ("LeJEPA", "class")],
    *[("Asha", "class"), ("LabelFree", "class"), ("FloatDistribution", "class"), ("range", "class")],
    *[("float('nan')", "nan"), ("float('inf')", "nan"), ("10**400", "huge"), ("-10**5000", "huge")],
]

"""Find the 10 columns that matter among 1,000 noisy ones, beside LassoCV.

python examples/feature_selection.py [ROUNDS] [HEADER.h]
"""

import sys

import numpy as np
from sklearn.linear_model import LassoCV

from sparsejax.models.ultra_sparse.estimator import UltraSparseRegressor
from sparsejax.models.ultra_sparse.export_c import export_c
from sparsejax.models.ultra_sparse.problems import make_problem

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
problem = make_problem("high_dimensional")  # 500 training rows, 1,000 columns, a nonlinear target
train, test = problem.train, problem.test
y_train, y_test = np.ravel(train.targets), np.ravel(test.targets)
true = set(problem.true_features)


def progress(done, loss):
    print(f"  {50 * done} rounds: training loss {loss:.4f}")  # a true result would end the fit here


net = UltraSparseRegressor(hidden_size=12, rounds=rounds, random_state=0, callback=progress)
net.fit(train.features, y_train)
lasso = LassoCV(cv=5, random_state=0).fit(train.features, y_train)

rows = (
    (
        "ultra-sparse net",
        net.get_support(indices=True),
        net.predict(test.features),
        net.config_.num_parameters,
    ),
    ("LassoCV", np.flatnonzero(lasso.coef_), lasso.predict(test.features), np.count_nonzero(lasso.coef_) + 1),
)
print(f"{'model':18}{'columns':>8}{'precision':>11}{'recall':>8}{'test mse':>10}{'parameters':>12}")
for name, columns, predicted, parameters in rows:
    found = len(true & set(columns.tolist()))
    error = np.mean((predicted - y_test) ** 2)
    print(
        f"{name:18}{len(columns):8d}{found / len(columns):11.2f}{found / len(true):8.2f}"
        f"{error:10.4f}{parameters:12d}"
    )

checkpoint = net.to_checkpoint()  # raw columns in; scaling is part of the weights
same = np.abs(np.ravel(checkpoint.apply(test.features)) - net.predict(test.features)).max()
print(f"the exported net differs from the estimator by {same:.1e}")
if len(sys.argv) > 2:
    print("C header:", export_c(checkpoint, sys.argv[2], name="net"))

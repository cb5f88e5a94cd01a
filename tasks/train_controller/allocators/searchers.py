"""The allocators that search, and the uniform one, by name."""

from tasks.train_controller.allocators.adapt import AdaptPruner
from tasks.train_controller.allocators.descent import Descent
from tasks.train_controller.allocators.evolution import Evolution
from tasks.train_controller.allocators.knapsack import Knapsack
from tasks.train_controller.allocators.portfolio import Portfolio
from tasks.train_controller.allocators.random_search import RandomSearch
from tasks.train_controller.allocators.rl_allocator import RLAllocator
from tasks.train_controller.allocators.rl_refine import RLRefine
from tasks.train_controller.allocators.search import Searcher
from tasks.train_controller.allocators.split import Split
from tasks.train_controller.allocators.uniform import Uniform

SEARCHERS: dict[str, type[Searcher]] = {
    "uniform": Uniform,
    "adapt": AdaptPruner,
    "split": Split,
    "random": RandomSearch,
    "evolution": Evolution,
    "milp": Knapsack,
    "descent": Descent,
    "rl": RLAllocator,
    "refine": RLRefine,
    "auto": Portfolio,
}

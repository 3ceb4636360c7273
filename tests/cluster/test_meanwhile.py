import gc

from ray_al.cluster.connect import meanwhile


def test_no_garbage_is_collected_while_the_cluster_is_left():
    seen = []
    with meanwhile(lambda: seen.append(gc.isenabled())):
        seen.append(gc.isenabled())
    assert seen == [False, False]
    assert gc.isenabled()

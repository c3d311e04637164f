"""`--reload`: a change of the service's modules is seen, and reloads the cluster."""

from __future__ import annotations

from rpccluster.testing import wait_until

SHOP = "import goods\nclass Shop:\n    def count(self):\n        return goods.NUMBER\n"


def test_a_change_of_the_code_is_seen(make_cluster):
    """Also of a module that the service imports; broken code changes nothing until it is mended."""
    made = make_cluster(service="shop:Shop", number_workers=2)
    made.write_module("shop", SHOP)
    made.write_module("goods", "NUMBER = 1")
    made.start("--reload")
    with made.client() as client:
        assert client.call("count") == 1
        made.write_module("goods", "NUMBER = 22")
        wait_until(lambda: client.call("count") == 22)
        assert made.wait_ready()["master"]["generation"] == 2
        made.write_module("goods", "NUMBER =")
        made.wait_log("Reload failed")
        assert client.call("count") == 22
        made.write_module("goods", "NUMBER = 333")
        wait_until(lambda: client.call("count") == 333)

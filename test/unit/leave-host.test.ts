// Needs: nothing. Which process may leave the host's root: the one that the launcher has made namespaces for.
import assert from "node:assert/strict";
import { hasOwnNamespaces } from "../../vmm/jail/leave-host.js";

describe("jail: the host that is left", () => {
  it("a process that has only inherited the launcher's word keeps the host's root", () => {
    assert.ok(hasOwnNamespaces({ VMLET_OWN_NAMESPACES: "42" }, 42));
    for (const environment of [{}, { VMLET_OWN_NAMESPACES: "" }, { VMLET_OWN_NAMESPACES: "1" }])
      assert.ok(!hasOwnNamespaces(environment, 42));
    assert.ok(!hasOwnNamespaces());
  });
});

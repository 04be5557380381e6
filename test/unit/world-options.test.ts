// Needs: nothing. What a guest's programs are to find besides their root: checks, and what is written for it.
import assert from "node:assert/strict";
import { resolverText, sysctlPath } from "../../vmm/sdk/set-up-world.js";
import { exposedPorts } from "../../vmm/sdk/vm-options.js";
import { checkWorld } from "../../vmm/sdk/world-options.js";

const NONE = { nameservers: undefined, search: undefined, options: undefined };

describe("sdk: what programs find", () => {
  it("nothing asked for is nothing to be done", () => {
    const problems: string[] = [];
    assert.equal(checkWorld({ image: "x", hosts: undefined }, problems), undefined);
    assert.deepEqual(problems, []);
  });

  it("what is right becomes plain lists", () => {
    const problems: string[] = [];
    const given = { hosts: { db: "10.0.0.5" }, dns: ["::1"], shmBytes: 65536, sysctls: { "net.core.somaxconn": "5" } };
    assert.deepEqual(checkWorld(given, problems), {
      hosts: [["db", "10.0.0.5"]],
      resolver: { ...NONE, nameservers: ["::1"] },
      shmBytes: 65536,
      sysctls: [["net.core.somaxconn", "5"]],
    });
    assert.deepEqual(problems, []);
  });

  const wrong: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [{ hosts: [] }, /^hosts \(a list\) is not an object$/],
    [{ hosts: { "a b": "1.2.3.4" } }, /"a b" is not 1 to 64/],
    [{ hosts: { a: "1.2.3.4\n5.6.7.8 b" } }, /is not an address$/],
    [{ hosts: { a: 1 } }, /^hosts\.a 1 is not a text$/],
    [{ dns: "9.9.9.9" }, /^dns "9.9.9.9" is not a list/],
    [{ dns: ["localhost"] }, /"localhost" is not the address of a name server/],
    [{ dnsSearch: ["a b"] }, /"a b" is not a domain/],
    [{ dnsOptions: ["a\nnameserver"] }, /is not an option of resolv.conf/],
    [{ shmBytes: 1.5 }, /^shmBytes 1.5 is not a whole number/],
    [{ shmBytes: 0 }, /from 4096 on/],
    [{ sysctls: { "../../etc/passwd": "x" } }, /is no name such as/],
    [{ sysctls: { "kernel/../x": "x" } }, /is no name such as/],
    [{ sysctls: { "kernel.x": "a\nb" } }, /is not one line/],
  ];
  for (const [given, message] of wrong) {
    it(`refused: ${JSON.stringify(given)}`, () => {
      const problems: string[] = [];
      checkWorld(given, problems);
      assert.equal(problems.length, 1);
      assert.match(problems[0] ?? "", message);
    });
  }

  it("a resolver keeps what is not given anew", () => {
    const old = "search home\nnameserver 10.0.2.3\n# said by nobody\noptions edns0\n";
    assert.equal(resolverText(old, NONE), "nameserver 10.0.2.3\nsearch home\noptions edns0\n");
    assert.equal(
      resolverText(old, { nameservers: ["1.1.1.1", "::1"], search: ["a", "b"], options: ["ndots:1"] }),
      "nameserver 1.1.1.1\nnameserver ::1\nsearch a b\noptions ndots:1\n",
    );
    assert.equal(resolverText("", { ...NONE, search: ["."] }), "");
  });

  it("names of settings are read as sysctl(8) does", () => {
    assert.equal(sysctlPath("net.ipv4.ip_forward"), "/proc/sys/net/ipv4/ip_forward");
    assert.equal(sysctlPath("net/ipv4/conf/eth0.1/rp_filter"), "/proc/sys/net/ipv4/conf/eth0.1/rp_filter");
    assert.equal(sysctlPath("net.ipv4.conf.eth0/1.rp_filter"), "/proc/sys/net/ipv4/conf/eth0.1/rp_filter");
  });

  it("ports that an image names", () => {
    const names = (text: string) =>
      exposedPorts(text)?.map(({ guestPort, protocol }) => `${String(guestPort)}/${protocol}`);
    assert.deepEqual(names("80"), ["80/tcp"]);
    assert.deepEqual(names("53/udp"), ["53/udp"]);
    assert.deepEqual(names("8000-8001/tcp"), ["8000/tcp", "8001/tcp"]);
    for (const text of ["0", "65536", "2-1", "80/sctp", "http", "1-65535"])
      assert.equal(exposedPorts(text), undefined, text);
  });
});

# SPDX-License-Identifier: MIT
"""An authority of the test's own, and certificates for a broker on loopback and for its clients."""
import subprocess

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def authority(folder, name="ca"):
    """NAME.pem and NAME.key in FOLDER."""
    openssl(folder, "req", "-x509", *CURVE, "-days", "2", "-subj", "/CN=" + name,
            "-keyout", name + ".key", "-out", name + ".pem")


def certificate(folder, name, address=None, signed_by="ca"):
    """NAME.pem and NAME.key; of a host if it has an ADDRESS such as IP:127.0.0.1."""
    openssl(folder, "req", "-new", *CURVE, "-subj", "/CN=" + name, "-keyout", name + ".key",
            "-out", name + ".csr")
    (folder / "ext").write_text("subjectAltName=%s\n" % address if address else "")
    openssl(folder, "x509", "-req", "-days", "2", "-in", name + ".csr", "-CA", signed_by + ".pem",
            "-CAkey", signed_by + ".key", "-CAcreateserial", "-extfile", "ext", "-out",
            name + ".pem")


def broker_lines(folder, server="server"):
    """What mosquitto's configuration says behind its listener: only whom the authority knows."""
    return ["cafile %s/ca.pem" % folder, "certfile %s/%s.pem" % (folder, server),
            "keyfile %s/%s.key" % (folder, server), "require_certificate true"]


def make_all(folder):
    """ca, server and client; `elsewhere` is another host's, `stranger` another authority's."""
    authority(folder)
    authority(folder, "other")
    certificate(folder, "server", "IP:127.0.0.1")
    certificate(folder, "elsewhere", "DNS:elsewhere.example")
    certificate(folder, "client")
    certificate(folder, "stranger", signed_by="other")

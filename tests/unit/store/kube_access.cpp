// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_access.hpp"

#include <doctest/doctest.h>

#include "store_fixture.hpp"

using namespace twill;
using twill::test::TempDir;
using twill::test::write_text;

namespace {

std::string config(const std::string& cluster, const std::string& user)
{
    return "apiVersion: v1\nkind: Config\ncurrent-context: here\n"
           "contexts:\n- name: other\n  context: {cluster: x, user: y}\n- name: here\n  context: {cluster: c, user: "
           "u}\n"
           "clusters:\n- name: c\n  cluster: {" +
           cluster + "}\nusers:\n- name: u\n  user: {" + user + "}\n";
}

std::string refusal(const std::string& text)
{
    const auto access = parse_kubeconfig(text, "/d", "");
    return access ? "" : access.error().what;
}

} // namespace

TEST_CASE("kube_access: certificates in line or in files, beside the kubeconfig")
{
    const auto files =
        parse_kubeconfig(config("server: 'https://a:6443/', certificate-authority: ca.pem, tls-server-name: k",
                                "client-certificate: /abs/c.pem, client-key: c.key"),
                         "/d", "");
    REQUIRE_MESSAGE(files, files.error().what);
    CHECK(files->url == "https://a:6443");
    HttpTls expected;
    expected.ca_file = "/d/ca.pem";
    expected.cert_file = "/abs/c.pem";
    expected.key_file = "/d/c.key";
    expected.server_name = "k";
    CHECK(files->tls == expected);
    CHECK(files->headers()->empty());

    const auto in_line =
        parse_kubeconfig(config("server: 'https://a', certificate-authority: no, certificate-authority-data: Y2EK",
                                "client-certificate-data: Y2VydA==, client-key-data: a2V5"),
                         "/d", "");
    REQUIRE_MESSAGE(in_line, in_line.error().what);
    expected = {};
    expected.ca_pem = "ca\n";
    expected.cert_pem = "cert";
    expected.key_pem = "key";
    CHECK(in_line->tls == expected);
}

TEST_CASE("kube_access: a token is sent, one in a file is read for each request")
{
    CHECK(*parse_kubeconfig(config("server: 'https://a'", "token: abc"), "/d", "")->headers() ==
          std::vector<std::string>{"Authorization: Bearer abc"});
    CHECK(*parse_kubeconfig(config("server: 'https://a'", "username: u, password: pw"), "/d", "")->headers() ==
          std::vector<std::string>{"Authorization: Basic dTpwdw=="});
    const TempDir dir;
    const auto access = parse_kubeconfig(config("server: 'https://a'", "tokenFile: t"), dir.path(), "");
    REQUIRE(access);
    CHECK(access->headers().error().code == ENOENT);
    write_text(dir.path() + "/t", "one\n");
    CHECK(*access->headers() == std::vector<std::string>{"Authorization: Bearer one"});
    write_text(dir.path() + "/t", "two\n");
    CHECK(*access->headers() == std::vector<std::string>{"Authorization: Bearer two"});
    write_text(dir.path() + "/t", "");
    CHECK_FALSE(access->headers());
    write_text(dir.path() + "/t", "a\r\nX-Other: b");
    CHECK_FALSE(access->headers()); // no second header through a file
}

TEST_CASE("kube_access: what cannot be used is refused by name, without what is secret")
{
    CHECK(refusal(config("server: 'https://a'", "exec: {command: aws}")).starts_with("user.exec: not supported"));
    CHECK(refusal(config("server: 'https://a'", "auth-provider: {name: gcp}")).starts_with("user.auth-provider:"));
    CHECK(refusal(config("server: 'https://a', proxy-url: 'http://p'", "token: a")).starts_with("cluster.proxy-url:"));
    CHECK(refusal(config("server: 'https://a', certificate-authority: c, insecure-skip-tls-verify: true", "token: a"))
              .starts_with("cluster.insecure-skip-tls-verify:"));
    CHECK(refusal(config("server: 'https://a'", "client-key: k")).starts_with("user.client-certificate:"));
    CHECK(refusal(config("server: 'https://a'", "client-key-data: '!secret!'")) == "user.client-key-data: want base64");
    CHECK(refusal(config("a: b", "token: a")) == "cluster.server: absent");
    CHECK(refusal(config("server: [1]", "token: a")).starts_with("cluster.server:"));
    CHECK(refusal("current-context: x").starts_with("contexts: none is called"));
    CHECK(refusal("a: b") == "current-context: absent");
    CHECK(refusal("") != "");
    CHECK(refusal("{") != "");
    CHECK(refusal("- 1") != "");
    CHECK(refusal(std::string(100000, '[')) != "");
}

TEST_CASE("kube_access: insecure, and a server without scheme")
{
    const auto access = parse_kubeconfig(config("server: 'a:1', insecure-skip-tls-verify: true", ""), "/d", "");
    REQUIRE(access);
    CHECK(access->url == "https://a:1");
    CHECK(access->tls.is_insecure);
    CHECK(parse_kubeconfig(config("server: 'a:1'", ""), "/d", "")->url == "http://a:1");
    CHECK(parse_kubeconfig(config("server: 'a:1'", "token: t"), "/d", "https://b:2/")->url == "https://b:2");
}

TEST_CASE("kube_access: options choose kubeconfig, URL or the pod's account, as flannel does")
{
    const TempDir dir;
    KubeOptions options;
    options.account_dir = dir.path();
    CHECK(kube_access(options).error().code == EINVAL);
    options.service_host = "fd00::1";
    options.service_port = "443";
    auto pod = kube_access(options);
    REQUIRE(pod);
    CHECK(pod->url == "https://[fd00::1]:443");
    CHECK(pod->tls.ca_file == dir.path() + "/ca.crt");
    CHECK(pod->token_file == dir.path() + "/token");
    options.api_url = "http://127.0.0.1:8080";
    CHECK(kube_access(options)->url == "http://127.0.0.1:8080");
    write_text(dir.path() + "/token", "secret");
    CHECK(kube_access(options)->token_file.empty()); // never in plain text
    options.api_url = "https://b";
    CHECK(kube_access(options)->token_file == dir.path() + "/token");
    options.kubeconfig_file = dir.path() + "/config";
    CHECK(kube_access(options).error().code == ENOENT);
    write_text(options.kubeconfig_file, config("server: 'https://a'", "exec: {command: aws}"));
    CHECK(kube_access(options).error().what.starts_with(options.kubeconfig_file + ": user.exec"));
    KubeAccess named;
    named.url = "https://user:secret@host:1/x@y";
    CHECK(named.describe() == "https://host:1/x@y");
}

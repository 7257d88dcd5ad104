// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_kube.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <list>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>

namespace twill::test {

namespace {

using nlohmann::json;

struct Event {
    std::uint64_t version;
    std::string type;
    std::string name;
    FakeNode node;
};

std::string quoted(const std::string& text) { return json(text).dump(); }

bool send_all(int fd, std::string_view text)
{
    while (!text.empty()) {
        const auto sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
        if (sent <= 0) return false;
        text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
}

std::string query_value(const std::string& target, const std::string& name)
{
    const auto at = target.find(name + "=");
    if (at == target.npos) return "";
    const auto start = at + name.size() + 1;
    return target.substr(start, target.find('&', start) - start);
}

/// One request from the connection; false at its end.
bool receive(int fd, std::string& buffer, FakeRequest& request, std::string& authorization)
{
    const auto fill = [&] {
        char piece[4096];
        const auto got = ::recv(fd, piece, sizeof(piece), 0);
        if (got > 0) buffer.append(piece, static_cast<std::size_t>(got));
        return got > 0;
    };
    std::size_t end = 0;
    while ((end = buffer.find("\r\n\r\n")) == buffer.npos)
        if (!fill()) return false;
    const std::string head = buffer.substr(0, end + 2);
    buffer.erase(0, end + 4);
    const auto field = [&](const std::string& name) -> std::string {
        const auto at = head.find("\r\n" + name + ": ");
        if (at == head.npos) return "";
        const auto start = at + name.size() + 4;
        return head.substr(start, head.find("\r\n", start) - start);
    };
    const auto space = head.find(' ');
    request.method = head.substr(0, space);
    request.target = head.substr(space + 1, head.find(' ', space + 1) - space - 1);
    request.content_type = field("Content-Type");
    authorization = field("Authorization");
    const auto length = static_cast<std::size_t>(std::atol(field("Content-Length").c_str()));
    while (buffer.size() < length)
        if (!fill()) return false;
    request.body = buffer.substr(0, length);
    buffer.erase(0, length);
    return true;
}

} // namespace

struct FakeKube::State {
    mutable std::mutex mutex;
    std::condition_variable changed;
    std::string padding;
    int port = 0;
    int listener = -1;
    bool is_up = false;
    std::set<int> connections;
    std::list<std::thread> threads;
    std::uint64_t version = 1000;
    std::uint64_t oldest = 0;
    unsigned watch_epoch = 0;
    unsigned page_epoch = 0;
    std::size_t watches = 0;
    std::map<std::string, FakeNode> nodes;
    std::vector<Event> events;
    std::deque<FakeFault> faults;
    std::string token;
    std::vector<FakeRequest> requests;
    std::vector<std::string> patches;

    std::string render(const std::string& name, const FakeNode& node) const
    {
        std::string annotations;
        for (const auto& [key, value] : node.annotations)
            annotations += (annotations.empty() ? "" : ",") + quoted(key) + ":" + quoted(value);
        std::string spec;
        if (!node.pod_cidrs.empty())
            spec = R"("podCIDR":)" + quoted(node.pod_cidrs[0]) + R"(,"podCIDRs":)" + json(node.pod_cidrs).dump();
        return R"({"kind":"Node","apiVersion":"v1","metadata":{"name":)" + quoted(name) +
               R"(,"uid":"2f3c","resourceVersion":")" + std::to_string(node.version) + R"(","annotations":{)" +
               annotations + R"(},"managedFields":[)" + padding + R"(]},"spec":{)" + spec +
               R"(},"status":{"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"})" +
               (node.is_announced ? R"(,{"type":"NetworkUnavailable","status":"False","reason":"FlannelIsUp",)"
                                    R"("lastTransitionTime":")" +
                                        node.announced_at + "\"}"
                                  : "") +
               R"(],"images":[)" + padding + "]}}";
    }
    void log(const std::string& type, const std::string& name, FakeNode& node)
    {
        node.version = ++version;
        events.push_back({version, type, name, node});
        changed.notify_all();
    }

    static std::string answer(int status, const std::string& body, const std::string& fields = "")
    {
        return "HTTP/1.1 " + std::to_string(status) + " x\r\nContent-Type: application/json\r\n" + fields +
               "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    }
    static std::string failure(int status, const std::string& fields = "")
    {
        return answer(status,
                      R"({"kind":"Status","status":"Failure","message":"fake trouble","code":)" +
                          std::to_string(status) + "}",
                      fields);
    }

    /// Of "metadata.name=", the only field that nodes can be selected by here.
    static std::optional<std::string> selected(const std::string& target)
    {
        const std::string selector = query_value(target, "fieldSelector");
        const auto name = selector.find_first_of("=%"); // percent-encoded or not
        if (name == selector.npos) return std::nullopt;
        return selector.substr(name + (selector[name] == '=' ? 1 : 3));
    }

    std::string list(const std::string& target)
    {
        const auto limit = static_cast<std::size_t>(std::atol(query_value(target, "limit").c_str()));
        const std::string token_text = query_value(target, "continue");
        const std::string epoch = std::to_string(page_epoch) + ".";
        if (!token_text.empty() && !token_text.starts_with(epoch)) return failure(410);
        auto it = token_text.empty() ? nodes.begin() : nodes.upper_bound(token_text.substr(epoch.size()));
        std::string items;
        std::string last;
        if (const auto one = selected(target)) {
            const auto found = nodes.find(*one);
            if (found != nodes.end()) items = render(found->first, found->second);
            it = nodes.end();
        }
        for (std::size_t n = 0; it != nodes.end() && (limit == 0 || n < limit); ++it, ++n) {
            items += (items.empty() ? "" : ",") + render(it->first, it->second);
            last = it->first;
        }
        const std::string next = it == nodes.end() ? "" : epoch + last;
        return answer(200, R"({"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":")" +
                               std::to_string(version) + R"(","continue":")" + next + R"("},"items":[)" + items + "]}");
    }

    std::string patch(const std::string& name, const FakeRequest& request)
    {
        const auto found = nodes.find(name);
        if (found == nodes.end()) return failure(404);
        if (request.content_type != "application/strategic-merge-patch+json") return failure(415);
        const auto body = json::parse(request.body, nullptr, false);
        if (body.is_discarded()) return failure(400);
        patches.push_back(request.body);
        auto& node = found->second;
        if (const auto at = json::json_pointer("/metadata/annotations"); body.contains(at)) {
            for (const auto& [key, value] : body.at(at).items())
                if (value.is_null())
                    node.annotations.erase(key);
                else
                    node.annotations[key] = value.get<std::string>();
        }
        if (const json::json_pointer condition("/status/conditions/0"); body.contains(condition)) {
            node.is_announced = true;
            node.announced_at = body[condition].value("lastTransitionTime", "");
        }
        log("MODIFIED", name, node);
        return answer(200, render(name, node));
    }

    std::string reply(const FakeRequest& request)
    {
        const std::string path = request.target.substr(0, request.target.find('?'));
        const std::string nodes_path = "/api/v1/nodes";
        if (path == "/api/v1/namespaces/ns/pods/pod" && request.method == "GET")
            return answer(200, R"({"kind":"Pod","spec":{"nodeName":"node-a"}})");
        if (path == nodes_path && request.method == "GET") return list(request.target);
        if (!path.starts_with(nodes_path + "/")) return failure(404);
        std::string name = path.substr(nodes_path.size() + 1);
        if (request.method == "PATCH" && name.ends_with("/status"))
            return patch(name.substr(0, name.size() - 7), request);
        if (request.method != "GET") return failure(403); // flannel's role
        const auto found = nodes.find(name);
        return found == nodes.end() ? failure(404) : answer(200, render(name, found->second));
    }

    void watch(int fd, const std::string& target)
    {
        const auto chunk = [](const std::string& text) {
            char size[24];
            (void)std::snprintf(size, sizeof(size), "%zx\r\n", text.size());
            return size + text + "\r\n";
        };
        std::unique_lock lock(mutex);
        auto from = static_cast<std::uint64_t>(std::atoll(query_value(target, "resourceVersion").c_str()));
        const unsigned epoch = watch_epoch;
        std::string out = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n";
        bool is_gone = from < oldest;
        if (is_gone)
            out += chunk(R"({"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}})"
                         "\n");
        ++watches;
        auto next = std::upper_bound(events.begin(), events.end(), from,
                                     [](std::uint64_t v, const Event& e) { return v < e.version; }) -
                    events.begin();
        while (is_up && epoch == watch_epoch && !is_gone) {
            std::vector<Event> fresh(events.begin() + next, events.end());
            next = static_cast<std::ptrdiff_t>(events.size());
            lock.unlock();
            bool is_open = send_all(fd, out);
            out.clear();
            for (const auto& event : fresh) {
                const std::string object =
                    event.type == "BOOKMARK"
                        ? R"({"kind":"Node","metadata":{"resourceVersion":")" + std::to_string(event.version) + "\"}}"
                        : render(event.name, event.node);
                is_open =
                    is_open && send_all(fd, chunk(R"({"type":")" + event.type + R"(","object":)" + object + "}\n"));
            }
            lock.lock();
            if (!is_open) break;
            // What is left is looked at now and then too: a client that went away says nothing.
            changed.wait_for(lock, std::chrono::milliseconds(200), [&] {
                return !is_up || epoch != watch_epoch || next != static_cast<std::ptrdiff_t>(events.size());
            });
        }
        --watches;
        lock.unlock();
        (void)send_all(fd, out + "0\r\n\r\n");
    }

    void serve(int fd)
    {
        std::string buffer;
        FakeRequest request;
        std::string authorization;
        while (receive(fd, buffer, request, authorization)) {
            std::unique_lock lock(mutex);
            requests.push_back(request);
            if (!token.empty() && authorization != "Bearer " + token) {
                const auto text = failure(401);
                lock.unlock();
                if (!send_all(fd, text)) break;
                continue;
            }
            std::optional<FakeFault> fault;
            if (!faults.empty()) {
                fault = faults.front();
                faults.pop_front();
            }
            const bool is_watch = request.target.find("watch=true") != std::string::npos;
            if (!fault && is_watch) {
                lock.unlock();
                watch(fd, request.target);
                continue;
            }
            if (fault && fault->kind == FakeFault::Kind::no_answer) break;
            if (fault && fault->kind == FakeFault::Kind::hang) {
                changed.wait(lock, [&] { return !connections.contains(fd); });
                break;
            }
            std::string text;
            if (fault && fault->kind == FakeFault::Kind::status) {
                text = failure(fault->status,
                               fault->retry_after.empty() ? "" : "Retry-After: " + fault->retry_after + "\r\n");
            } else {
                text = reply(request);
            }
            lock.unlock();
            if (fault && fault->kind == FakeFault::Kind::half_body) {
                (void)send_all(fd, std::string_view(text).substr(0, text.size() / 2));
                break;
            }
            if (!send_all(fd, text)) break;
        }
        const std::lock_guard lock(mutex);
        connections.erase(fd);
        ::close(fd);
    }

    void accept_all(int fd)
    {
        for (;;) {
            const int connection = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
            if (connection < 0) break;
            const int on = 1;
            (void)::setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
            const std::lock_guard lock(mutex);
            if (!is_up) {
                ::close(connection);
                break;
            }
            connections.insert(connection);
            threads.emplace_back([this, connection] { serve(connection); });
        }
        ::close(fd);
    }
};

FakeKube::FakeKube(std::size_t padding_bytes) : state_(std::make_unique<State>())
{
    // Half of it in managedFields, half in the list of images, as in real nodes.
    while (state_->padding.size() < padding_bytes / 2)
        state_->padding += std::string(state_->padding.empty() ? "" : ",") +
                           R"({"names":["registry.example.org/team/app@sha256:0123456789abcdef0123456789abcdef",)" +
                           R"("registry.example.org/team/app:v1.2.3"],"sizeBytes":123456789,"f:a":{"f:b":{}}})";
    start();
}

FakeKube::~FakeKube() { stop(); }

std::string FakeKube::url() const { return "http://127.0.0.1:" + std::to_string(state_->port); }

void FakeKube::start()
{
    const std::lock_guard lock(state_->mutex);
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(state_->port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd, 64) != 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
        std::abort(); // a test machine without a loopback port
    state_->port = ntohs(address.sin_port);
    state_->listener = fd;
    state_->is_up = true;
    state_->threads.emplace_back([state = state_.get(), fd] { state->accept_all(fd); });
}

void FakeKube::stop()
{
    std::list<std::thread> ended;
    {
        const std::lock_guard lock(state_->mutex);
        if (!state_->is_up) return;
        state_->is_up = false;
        (void)::shutdown(state_->listener, SHUT_RDWR);
        for (const int fd : state_->connections) {
            const linger hard{1, 0}; // a killed server: its peers see a reset
            (void)::setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
            (void)::shutdown(fd, SHUT_RDWR);
        }
        state_->connections.clear();
        state_->changed.notify_all();
        ended = std::move(state_->threads);
        state_->threads.clear();
    }
    for (auto& thread : ended) thread.join();
}

void FakeKube::put_node(const std::string& name, const FakeNode& node)
{
    const std::lock_guard lock(state_->mutex);
    const bool is_new = !state_->nodes.contains(name);
    state_->nodes[name] = node;
    state_->log(is_new ? "ADDED" : "MODIFIED", name, state_->nodes[name]);
}

void FakeKube::remove_node(const std::string& name)
{
    const std::lock_guard lock(state_->mutex);
    auto node = state_->nodes[name];
    state_->nodes.erase(name);
    state_->log("DELETED", name, node);
}

FakeNode FakeKube::node(const std::string& name) const
{
    const std::lock_guard lock(state_->mutex);
    return state_->nodes.at(name);
}

void FakeKube::heartbeats(std::size_t count)
{
    while (count > 0) {
        const std::lock_guard lock(state_->mutex);
        for (auto& [name, node] : state_->nodes) {
            if (count-- == 0) return;
            state_->log("MODIFIED", name, node);
        }
    }
}

void FakeKube::close_watches()
{
    const std::lock_guard lock(state_->mutex);
    ++state_->watch_epoch;
    state_->changed.notify_all();
}

void FakeKube::compact()
{
    const std::lock_guard lock(state_->mutex);
    state_->oldest = ++state_->version;
    state_->events.clear();
    ++state_->watch_epoch;
    state_->changed.notify_all();
}

void FakeKube::expire_pages()
{
    const std::lock_guard lock(state_->mutex);
    ++state_->page_epoch;
}

void FakeKube::bookmark()
{
    const std::lock_guard lock(state_->mutex);
    FakeNode none;
    state_->log("BOOKMARK", "", none);
}

void FakeKube::restore(std::uint64_t version)
{
    const std::lock_guard lock(state_->mutex);
    state_->version = version;
    state_->oldest = 0;
    state_->events.clear();
}

void FakeKube::fail(std::size_t requests, FakeFault fault)
{
    const std::lock_guard lock(state_->mutex);
    state_->faults.insert(state_->faults.end(), requests, fault);
}

void FakeKube::require_token(const std::string& token)
{
    const std::lock_guard lock(state_->mutex);
    state_->token = token;
}

std::vector<FakeRequest> FakeKube::requests() const
{
    const std::lock_guard lock(state_->mutex);
    return state_->requests;
}

std::vector<std::string> FakeKube::patches() const
{
    const std::lock_guard lock(state_->mutex);
    return state_->patches;
}

std::size_t FakeKube::count(const std::string& part) const
{
    const std::lock_guard lock(state_->mutex);
    return static_cast<std::size_t>(
        std::count_if(state_->requests.begin(), state_->requests.end(),
                      [&](const FakeRequest& r) { return r.target.find(part) != std::string::npos; }));
}

std::size_t FakeKube::watches() const
{
    const std::lock_guard lock(state_->mutex);
    return state_->watches;
}

} // namespace twill::test

import { useCallback, useEffect, useState } from "react";
import { bff } from "/bff/client.js";
import { answer, said } from "./answer.js";
import { Title } from "./route.jsx";

const money = new Intl.NumberFormat(undefined, { style: "currency", currency: "EUR" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export function Orders({ feed }) {
  const [data, setData] = useState();
  const [problem, setProblem] = useState();

  const load = useCallback(async () => {
    try {
      const r = await bff.fetch("/api/orders");
      setData(await answer(r));
      setProblem();
    } catch (err) {
      setProblem(said(err));
    }
  }, []);
  useEffect(() => { load(); }, [load]);
  useEffect(() => {
    setData((former) => former && { ...former, orders: merge(former.orders, feed.messages) });
  }, [feed.messages]);

  const place = async (order) => {
    // Should a login be needed, it is in a popup, and the order is sent after it.
    const r = await bff.fetch("/api/orders", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(order),
      login: "popup",
    });
    const placed = await answer(r);
    setData((former) => ({ ...former, orders: merge(former.orders, [{ order: placed }]) }));
  };

  const orders = data?.orders;
  return (
    <>
      <div className="head">
        <div>
          <Title>Orders</Title>
          <p className="soft">{orders ? summary(orders) : "Loading…"}</p>
        </div>
        <button onClick={load}>Refresh</button>
      </div>
      {problem && <p className="problem" role="alert">{problem} <button onClick={load}>Try again</button></p>}
      {data && <NewOrder onPlace={place} />}
      {orders && (
        <div className="card flush">
          <table>
            <caption className="unseen">Orders, newest first</caption>
            <thead>
              <tr>
                <th scope="col">Order</th>
                <th scope="col">Customer</th>
                <th scope="col">Item</th>
                <th scope="col">Placed</th>
                <th scope="col">Status</th>
                <th scope="col" className="number">Total</th>
              </tr>
            </thead>
            <tbody>
              {orders.map((order) => (
                <tr key={order.id} className={order.live ? "live" : undefined}>
                  <th scope="row">{order.id}</th>
                  <td data-label="Customer">{order.customer}</td>
                  <td data-label="Item">{order.item}</td>
                  <td data-label="Placed"><time dateTime={order.placed_at}>{day.format(new Date(order.placed_at))}</time></td>
                  <td data-label="Status"><Status of={order} /></td>
                  <td data-label="Total" className="number">{money.format(order.total)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {data && (
        <p className="fine">
          The API received an access token {data.caller.sub ? <>of subject <code>{data.caller.sub}</code></> : "it can’t read"}. This
          browser did not.
        </p>
      )}
    </>
  );
}

// Status is named by a word; its colour only repeats it.
export function Status({ of: order }) {
  return <span key={order.status} className={`status ${order.status}`}>{order.status}</span>;
}

// merge puts news, the latest first, over what is known.
function merge(orders, messages) {
  const latest = new Map(orders.map((order) => [order.id, order]));
  for (const { order } of messages) {
    const known = latest.get(order.id);
    if (!known || order.updated_at > known.updated_at) latest.set(order.id, { ...order, live: true });
  }
  return [...latest.values()].sort((a, b) => b.placed_at.localeCompare(a.placed_at));
}

function summary(orders) {
  const under = orders.filter(({ status }) => status !== "delivered").length;
  return `${orders.length} orders, ${under} under way`;
}

function NewOrder({ onPlace }) {
  const [order, setOrder] = useState({ customer: "", item: "" });
  const [state, setState] = useState({});
  const field = (name) => ({
    id: `new-${name}`,
    name,
    value: order[name],
    maxLength: 60,
    required: true,
    autoComplete: "off",
    onChange: ({ target }) => setOrder((former) => ({ ...former, [name]: target.value })),
  });

  const submit = async (event) => {
    event.preventDefault();
    setState({ busy: true });
    try {
      await onPlace(order);
      setOrder({ customer: "", item: "" });
      setState({ done: `The order for ${order.customer} is placed.` });
    } catch (err) {
      setState({ problem: said(err) });
    }
  };
  return (
    <form className="card new" onSubmit={submit} aria-label="New order">
      <label htmlFor="new-customer">Customer<input placeholder="Marina Duarte" {...field("customer")} /></label>
      <label htmlFor="new-item">Item<input placeholder="Tide clock" {...field("item")} /></label>
      <button className="primary" disabled={state.busy}>Place order</button>
      <p className={state.problem ? "problem" : "soft"} role="status">{state.problem ?? state.done}</p>
    </form>
  );
}

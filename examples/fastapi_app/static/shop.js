const SHOWN_MAX = 10;
const list = document.getElementById("events");

const show = (event) => {
  const { order_id, status, at } = JSON.parse(event.data);
  const item = document.createElement("li");
  item.textContent = `${at.slice(11, 19)} order ${order_id} ${status}`;
  list.prepend(item);
  while (list.children.length > SHOWN_MAX) list.lastChild.remove();
};

const source = new EventSource("/live/orders");
for (const status of ["placed", "confirmed", "shipped", "delivered", "cancelled"]) {
  source.addEventListener(status, show);
}

document.getElementById("order").addEventListener("click", () => {
  const line = { product_id: 1 + Math.floor(Math.random() * 2000), quantity: 1 };
  fetch("/orders", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ customer_id: 1, lines: [line] }),
  });
});
